{{/* The number of pods, where the chart is to know it. Called with a service's values. */}}
{{- define "gatepost.replicas" -}}
{{- if and (not .autoscaling.enabled) (not (kindIs "invalid" .replicas)) -}}
replicas: {{ .replicas }}
{{- end -}}
{{- end -}}

{{/* Called with (dict "root" $ "component" "edge" "values" .Values.edge). */}}
{{- define "gatepost.autoscaler" -}}
{{- $name := printf "%s-%s" (include "gatepost.fullname" .root) .component }}
{{- if .values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "gatepost.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .values.autoscaling.targetCPUUtilizationPercentage }}}
  {{- with .values.autoscaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if .root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "gatepost.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  # A pod that doesn't work must not stop a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "gatepost.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
