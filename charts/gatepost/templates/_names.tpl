{{/* Names, labels and image references. */}}

{{- define "gatepost.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/*
31 characters: a StatefulSet's name, here with "-mailbox-" and a store of 12, may have 52, since its pods carry it with a
hash in a label.
*/}}
{{- define "gatepost.fullname" -}}
{{- $name := include "gatepost.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 31 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that never change, by which pods are found. Called with (dict "root" $ "component" "edge"). */}}
{{- define "gatepost.selector" -}}
app.kubernetes.io/name: {{ include "gatepost.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .store }}
gatepost.dev/store: {{ . }}
{{- end }}
{{- end -}}

{{- define "gatepost.labels" -}}
{{ include "gatepost.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: gatepost
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Called with (dict "root" $ "image" .Values.image). */}}
{{- define "gatepost.image" -}}
{{- $name := .image.repository -}}
{{- with .image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{- define "gatepost.kafka.host" -}}
{{ include "gatepost.fullname" . }}-kafka.{{ .Release.Namespace }}.svc
{{- end -}}
