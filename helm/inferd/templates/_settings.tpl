{{/* The settings file. */}}
{{- define "inferd.settings" -}}
host: "0.0.0.0"
grpc_port: 8001
metrics_port: 8002
{{- if .Values.modelRepository.existingClaim }}
model_repository: /models
{{- else if .Values.modelRepository.path }}
model_repository: {{ .Values.modelRepository.path | quote }}
{{- end }}
{{- if .Values.gpu.enabled }}
plan_store: /plans
{{- end }}
{{- with include "inferd.security.settings" . | trim }}
{{ . }}
{{- end }}
{{- with .Values.settings }}
drain_delay_s: {{ .drainDelaySeconds }}
drain_timeout_s: {{ .drainTimeoutSeconds }}
log_format: {{ .logFormat }}
log_level: {{ .logLevel }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Seconds until the kubelet kills the pod; refused where it would cut the drain short. */}}
{{- define "inferd.gracePeriod" -}}
{{- $drain := add .Values.settings.drainDelaySeconds .Values.settings.drainTimeoutSeconds -}}
{{- $given := int64 .Values.terminationGracePeriodSeconds -}}
{{- if and $given (le $given $drain) -}}
{{- fail (printf "terminationGracePeriodSeconds (%d) must exceed settings.drainDelaySeconds + settings.drainTimeoutSeconds (%d): requests in flight would be killed" $given $drain) -}}
{{- end -}}
{{- $given | default (add $drain 5) -}}
{{- end }}
