{{/* Certificates and identities: Secrets, mounted whole so that what is renewed arrives. */}}
{{- define "inferd.security.settings" -}}
{{- with .Values.security }}
{{- if .tlsSecret }}
tls_certificate: /etc/inferd-tls/tls.crt
tls_private_key: /etc/inferd-tls/tls.key
{{- if .clientCertificates }}
tls_client_ca: /etc/inferd-tls/ca.crt
{{- end }}
probe_port: {{ .probePort }}
{{- else if .clientCertificates }}
{{- fail "security.clientCertificates needs security.tlsSecret" }}
{{- end }}
{{- if .identitiesSecret }}
identities_file: /etc/inferd-identities/identities.yaml
{{- end }}
{{- end }}
{{- end }}

{{/* Where probes are answered in plaintext. */}}
{{- define "inferd.security.probePort" -}}
{{- ternary .Values.security.probePort 8001 (not (empty .Values.security.tlsSecret)) -}}
{{- end }}

{{- define "inferd.security.mounts" -}}
{{- if .Values.security.tlsSecret }}
- name: tls
  mountPath: /etc/inferd-tls
  readOnly: true
{{- end }}
{{- if .Values.security.identitiesSecret }}
- name: identities
  mountPath: /etc/inferd-identities
  readOnly: true
{{- end }}
{{- end }}

{{- define "inferd.security.volumes" -}}
{{- with .Values.security.tlsSecret }}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with .Values.security.identitiesSecret }}
- name: identities
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- end }}


{{/* Containers that run first get no more rights than the server, unless they say so. */}}
{{- define "inferd.initContainers" -}}
{{- $rights := include "inferd.securityContext" . | fromYaml -}}
{{- range .Values.initContainers }}
{{- /* Not `merge`, which takes a false for nothing. */}}
{{- $own := merge (dict) (.securityContext | default dict) }}
{{- range $name, $value := $rights }}
{{- if not (hasKey $own $name) }}
{{- $_ := set $own $name $value }}
{{- end }}
{{- end }}
- {{ set (deepCopy .) "securityContext" $own | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}
