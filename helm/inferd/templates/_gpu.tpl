{{/* What a pod with GPUs has beside its containers. Takes (list $ SUFFIX of the claim's template). */}}
{{- define "inferd.gpu.pod" -}}
{{- $root := first . -}}
{{- with $root.Values.gpu }}
{{- if .enabled }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- if .dra.deviceClassName }}
resourceClaims:
  - name: gpu
    resourceClaimTemplateName: {{ print (include "inferd.gpu.claimName" $root) (last $) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A GPU of a device plugin stands among the limits: its request is the same by definition. */}}
{{- define "inferd.gpu.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- with .Values.gpu -}}
{{- if and .enabled .dra.deviceClassName -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- else if .enabled -}}
{{- $whole := ternary "nvidia.com/gpu" (printf "nvidia.com/mig-%s" .migProfile) (empty .migProfile) -}}
{{- $gpus := dict (.resourceName | default $whole) .count -}}
{{- $_ := set $resources "limits" (merge $gpus ($resources.limits | default dict)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* The devices that a pod asks for by DRA. */}}
{{- define "inferd.gpu.claim" -}}
{{- with .Values.gpu -}}
{{- $selectors := .dra.selectors -}}
{{- with .migProfile -}}
{{- $selectors = append $selectors (printf "device.attributes['gpu.nvidia.com'].profile == '%s'" .) -}}
{{- end -}}
devices:
  requests:
    - name: gpu
      exactly:
        deviceClassName: {{ .dra.deviceClassName | quote }}
        allocationMode: ExactCount
        count: {{ .count }}
        {{- with $selectors }}
        selectors:
          {{- range . }}
          - cel:
              expression: {{ . | quote }}
          {{- end }}
        {{- end }}
{{- end }}
{{- end }}

{{/* A ResourceClaimTemplate cannot be changed: other devices, another name. */}}
{{- define "inferd.gpu.claimName" -}}
{{ include "inferd.fullname" . }}-gpu-{{ include "inferd.gpu.claim" . | sha256sum | trunc 8 }}
{{- end }}

{{/* Plans outlive their pod on a claim only. */}}
{{- define "inferd.plans.volume" -}}
- name: plans
  {{- with .Values.planStore }}
  {{- if .existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .existingClaim | quote }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .sizeLimit | quote }}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "inferd.plans.mount" -}}
- name: plans
  mountPath: /plans
  {{- with .Values.planStore.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
