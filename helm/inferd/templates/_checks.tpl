{{/* Refuse what does not fit together, with a sentence: Helm shows none of a schema. */}}
{{- define "inferd.check" -}}
{{- include "inferd.check.ports" . -}}
{{- include "inferd.check.models" . -}}
{{- include "inferd.check.gpu" . -}}
{{- include "inferd.check.security" . -}}
{{- include "inferd.check.jobs" . -}}
{{- with .Values.autoscaling -}}
{{- if and .by (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d, and autoscaling.maxReplicas only %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and (eq .by "keda") (not .prometheusUrl) -}}
{{- fail "autoscaling.by is keda, which has to know where Prometheus is: autoscaling.prometheusUrl" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.podMonitor and metrics.serviceMonitor are both enabled: Prometheus would read every pod twice" -}}
{{- end -}}
{{- if and .Values.grpcRoute.enabled (not .Values.grpcRoute.parentRefs) -}}
{{- fail "grpcRoute.enabled needs grpcRoute.parentRefs, the gateways that the route belongs to" -}}
{{- end -}}
{{- end }}

{{/* A schema cannot compare numbers. */}}
{{- define "inferd.check.ports" -}}
{{- $ports := dict "service.grpcPort" .Values.service.grpcPort "service.metricsPort" .Values.service.metricsPort -}}
{{- if .Values.security.tlsSecret -}}
{{- $_ := set $ports "security.probePort" .Values.security.probePort -}}
{{- end -}}
{{- range $name, $port := $ports -}}
{{- range $other, $same := $ports -}}
{{- if and (lt $name $other) (eq (int $port) (int $same)) -}}
{{- fail (printf "%s and %s are both %d: each needs a port of its own" $name $other (int $port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "inferd.check.models" -}}
{{- with .Values.modelRepository -}}
{{- $sources := list -}}
{{- range $name, $given := dict "existingClaim" .existingClaim "fetch.image" .fetch.image "image.reference" .image.reference "path" .path "storeUrl" .storeUrl -}}
{{- if $given -}}
{{- $sources = append $sources (printf "modelRepository.%s" $name) -}}
{{- end -}}
{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "models come from one place, and here are %d: %s" (len $sources) (sortAlpha $sources | join ", ")) -}}
{{- end -}}
{{- if .image.reference -}}
{{- include "inferd.check.kubernetes" (list $ "modelRepository.image" "1.33") -}}
{{- end -}}
{{- if and (not .storeUrl) (or .storeEndpoint .storeSecret) (not $.Values.backup.schedule) -}}
{{- fail "modelRepository.storeEndpoint and storeSecret are of a store: modelRepository.storeUrl says which" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "inferd.check.gpu" -}}
{{- with .Values.gpu -}}
{{- if and .dra.deviceClassName .resourceName -}}
{{- fail "gpu.dra.deviceClassName and gpu.resourceName are both set: GPUs come by dynamic resource allocation or from a device plugin" -}}
{{- end -}}
{{- if and .migProfile .resourceName -}}
{{- fail "gpu.migProfile and gpu.resourceName are both set: the profile is part of the resource's name" -}}
{{- end -}}
{{- if and .dra.selectors (not .dra.deviceClassName) -}}
{{- fail "gpu.dra.selectors needs gpu.dra.deviceClassName" -}}
{{- end -}}
{{- if and .enabled .dra.deviceClassName -}}
{{- include "inferd.check.kubernetes" (list $ "gpu.dra" "1.34") -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Takes (list $ WHAT VERSION). */}}
{{- define "inferd.check.kubernetes" -}}
{{- $have := (first .).Capabilities.KubeVersion.Version -}}
{{- if not (semverCompare (printf ">=%s.0-0" (last .)) $have) -}}
{{- fail (printf "%s needs Kubernetes %s or later, and this is %s" (index . 1) (last .) $have) -}}
{{- end -}}
{{- end }}

{{- define "inferd.check.security" -}}
{{- with .Values.security -}}
{{- if and .clientCertificates (not .tlsSecret) -}}
{{- fail "security.clientCertificates needs security.tlsSecret" -}}
{{- end -}}
{{- if and (eq .requireModels "sealed") (not .modelKeysSecret) -}}
{{- fail "security.requireModels is sealed, which needs security.modelKeysSecret: no model could be opened" -}}
{{- end -}}
{{- if and (ne .requireModels "any") (not .modelSignersSecret) -}}
{{- fail (printf "security.requireModels is %s, which needs security.modelSignersSecret: no signature would count" .requireModels) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.cache.redisPasswordSecret (not .Values.cache.redisUrl) -}}
{{- fail "cache.redisPasswordSecret needs cache.redisUrl" -}}
{{- end -}}
{{- if and .Values.tracing.headersSecret (not .Values.tracing.url) -}}
{{- fail "tracing.headersSecret needs tracing.url" -}}
{{- end -}}
{{- end }}

{{- define "inferd.check.jobs" -}}
{{- if .Values.prebuild.gpuTypes -}}
{{- if not (and .Values.gpu.enabled .Values.planStore.existingClaim .Values.prebuild.models (include "inferd.models.folder" .)) -}}
{{- fail "prebuild.gpuTypes needs gpu.enabled, planStore.existingClaim, prebuild.models, and models in a folder (modelRepository.existingClaim, image, fetch or path)" -}}
{{- end -}}
{{- end -}}
{{- with .Values.backup -}}
{{- if and .schedule (not (or $.Values.modelRepository.storeUrl $.Values.modelRepository.existingClaim)) -}}
{{- fail "backup.schedule needs a store: modelRepository.storeUrl, or modelRepository.existingClaim that holds one" -}}
{{- end -}}
{{- if and .schedule (contains "://" .destination | eq (not (empty .existingClaim))) -}}
{{- fail "backup.schedule needs one place for backups: backup.destination (s3://, gs:// or az://) or backup.existingClaim" -}}
{{- end -}}
{{- end -}}
{{- end }}
