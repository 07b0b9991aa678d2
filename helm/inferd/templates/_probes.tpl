{{/* Service "liveness" is served unless the server cannot repair itself; "" only while it takes requests. */}}
{{- define "inferd.probes" -}}
startupProbe:
  grpc:
    port: {{ include "inferd.probePort" . }}
    service: liveness
  {{- toYaml .Values.probes.startup | nindent 2 }}
readinessProbe:
  grpc:
    port: {{ include "inferd.probePort" . }}
    service: ""
  {{- toYaml .Values.probes.readiness | nindent 2 }}
livenessProbe:
  grpc:
    port: {{ include "inferd.probePort" . }}
    service: liveness
  {{- toYaml .Values.probes.liveness | nindent 2 }}
{{- end }}
