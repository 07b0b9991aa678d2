{{/* The settings file. */}}
{{- define "inferd.settings" -}}
host: "0.0.0.0"
grpc_port: 8001
metrics_port: 8002
{{- include "inferd.models.settings" . }}
{{- if .Values.gpu.enabled }}
plan_store: /plans
{{- end }}
{{- include "inferd.secrets.settings" . }}
{{- with .Values.cache.redisUrl }}
cache_redis_url: {{ . | quote }}
{{- end }}
{{- with .Values.tracing.url }}
traces_to: {{ . | quote }}
{{- end }}
{{- with .Values.settings }}
drain_delay_s: {{ .drainDelaySeconds }}
drain_timeout_s: {{ .drainTimeoutSeconds }}
max_connection_age_s: {{ .connectionAgeSeconds }}
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
