{{/* Which nodes may run a pod, with what `gpu.enabled` adds. */}}
{{- define "inferd.placement" -}}
{{- $gpu := ternary .Values.gpu dict .Values.gpu.enabled -}}
{{- with merge (dict) .Values.nodeSelector ($gpu.nodeSelector | default dict) }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat .Values.tolerations ($gpu.tolerations | default list) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Which node runs the server's pod, and how. */}}
{{- define "inferd.scheduling" -}}
{{- include "inferd.placement" . }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with ternary .Values.gpu.runtimeClassName "" .Values.gpu.enabled }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* A GPU stands among the limits: its request is the same by definition. */}}
{{- define "inferd.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $gpus := dict .Values.gpu.resourceName .Values.gpu.count -}}
{{- $_ := set $resources "limits" (merge $gpus ($resources.limits | default dict)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* Plans outlive their pod on a claim only. */}}
{{- define "inferd.planVolume" -}}
{{- with .Values.planStore -}}
{{- if .existingClaim -}}
persistentVolumeClaim:
  claimName: {{ .existingClaim | quote }}
{{- else -}}
emptyDir:
  sizeLimit: {{ .sizeLimit | quote }}
{{- end -}}
{{- end -}}
{{- end }}
