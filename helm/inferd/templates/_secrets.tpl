{{/* Which Secrets are mounted, each at /etc/inferd-NAME. */}}
{{- define "inferd.secrets" -}}
tls: {{ .Values.security.tlsSecret | quote }}
identities: {{ .Values.security.identitiesSecret | quote }}
model-keys: {{ .Values.security.modelKeysSecret | quote }}
model-signers: {{ .Values.security.modelSignersSecret | quote }}
redis: {{ .Values.cache.redisPasswordSecret | quote }}
traces: {{ .Values.tracing.headersSecret | quote }}
{{- end }}

{{/* Mounted whole, so that what is renewed arrives. */}}
{{- define "inferd.secrets.mounts" -}}
{{- range $name, $secret := include "inferd.secrets" . | fromYaml }}
{{- if $secret }}
- name: {{ $name }}
  mountPath: /etc/inferd-{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "inferd.secrets.volumes" -}}
{{- range $name, $secret := include "inferd.secrets" . | fromYaml }}
{{- if $secret }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}

{{/* The settings that name their files. */}}
{{- define "inferd.secrets.settings" -}}
{{- with .Values.security }}
{{- if .tlsSecret }}
tls_certificate: /etc/inferd-tls/tls.crt
tls_private_key: /etc/inferd-tls/tls.key
{{- if .clientCertificates }}
tls_client_ca: /etc/inferd-tls/ca.crt
{{- end }}
probe_port: {{ .probePort }}
{{- end }}
{{- if .identitiesSecret }}
identities_file: /etc/inferd-identities/identities.yaml
{{- end }}
{{- if .modelKeysSecret }}
model_keys:
  {{- range .modelKeys }}
  - file:/etc/inferd-model-keys/{{ . }}
  {{- end }}
{{- end }}
{{- if .modelSignersSecret }}
model_signers:
  {{- range .modelSigners }}
  - /etc/inferd-model-signers/{{ . }}
  {{- end }}
{{- end }}
{{- if ne .requireModels "any" }}
require_models: {{ .requireModels }}
{{- end }}
{{- end }}
{{- if .Values.cache.redisPasswordSecret }}
cache_redis_password_file: /etc/inferd-redis/password
{{- end }}
{{- if .Values.tracing.headersSecret }}
trace_headers_file: /etc/inferd-traces/headers
{{- end }}
{{- end }}
