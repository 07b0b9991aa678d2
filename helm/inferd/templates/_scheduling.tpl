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
{{- with .Values.topologySpread.keys }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ . | quote }}
    maxSkew: 1
    whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "inferd.selector" $ | nindent 8 }}
    # Each rollout by itself, or pods that are about to go would count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- include "inferd.gpu.pod" (list . "") }}
{{- end }}
