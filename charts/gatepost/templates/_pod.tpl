{{/*
The pod of a service. Called with a dict:
  root, component, values (.Values.edge ...), args, and where they differ: command image, store, ports, volumes,
  mounts, delivery, token, fsGroup.
*/}}
{{- define "gatepost.pod" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $pod := mergeOverwrite (deepCopy $v.pod) (deepCopy (default dict .values.pod)) -}}
{{- $labels := dict "root" $root "component" .component "store" .store -}}
{{- $image := default $v.image .image -}}
metadata:
  labels:
    {{- include "gatepost.labels" $labels | nindent 4 }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed setting rolls the pods.
    gatepost.dev/settings: {{ include "gatepost.settings" (dict "root" $root "delivery" .delivery) | sha256sum }}
    kubectl.kubernetes.io/default-container: gatepost
    {{- with $pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "gatepost.fullname" $root }}{{ if .token }}-operator{{ end }}
  automountServiceAccountToken: {{ default false .token }}
  # A Service called gatepost would put GATEPOST_... variables into the pods, which are settings here.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "gatepost.placement" (dict "pod" $pod "labels" $labels) | nindent 2 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    # Otherwise a volume with a million messages is walked through at each start.
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: gatepost
      image: {{ include "gatepost.image" (dict "root" $root "image" $image) }}
      imagePullPolicy: {{ $image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: LOGNAME, value: gatepost}
        {{- with $pod.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: admin, containerPort: 8025}
        {{- with .ports }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .values.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ . }}}
      {{- end }}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 1
        failureThreshold: 120
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: settings, mountPath: /etc/gatepost/settings, readOnly: true}
        - {name: state, mountPath: /var/lib/gatepost}
        - {name: tmp, mountPath: /tmp}
        {{- include "gatepost.kafka.mounts" $root | nindent 8 }}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: settings
      configMap:
        name: {{ include "gatepost.fullname" $root }}
        items:
          - {key: {{ if .delivery }}delivery.yaml{{ else }}gatepost.yaml{{ end }}, path: gatepost.yaml}
    - {name: state, emptyDir: {}}
    - {name: tmp, emptyDir: {}}
    {{- include "gatepost.kafka.volumes" $root | nindent 4 }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "gatepost.placement" -}}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .pod.spread }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gatepost.selector" $.labels | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Secrets are mounted as whole folders: a file by subPath would never see a renewed Secret. */}}
{{- define "gatepost.kafka.mounts" -}}
{{- if and .Values.kafka.tls.enabled .Values.kafka.tls.caSecret.name }}
- {name: kafka-ca, mountPath: /etc/gatepost/kafka-ca, readOnly: true}
{{- end }}
{{- if .Values.kafka.tls.certificateSecret }}
- {name: kafka-tls, mountPath: /etc/gatepost/kafka-tls, readOnly: true}
{{- end }}
{{- if .Values.kafka.sasl.username }}
- {name: kafka-password, mountPath: /etc/gatepost/kafka-password, readOnly: true}
{{- end }}
{{- end -}}

{{- define "gatepost.kafka.volumes" -}}
{{- if and .Values.kafka.tls.enabled .Values.kafka.tls.caSecret.name }}
- {name: kafka-ca, secret: {secretName: {{ .Values.kafka.tls.caSecret.name }}, defaultMode: 0440}}
{{- end }}
{{- if .Values.kafka.tls.certificateSecret }}
- {name: kafka-tls, secret: {secretName: {{ .Values.kafka.tls.certificateSecret }}, defaultMode: 0440}}
{{- end }}
{{- if .Values.kafka.sasl.username }}
- {name: kafka-password, secret: {secretName: {{ .Values.kafka.sasl.passwordSecret.name }}, defaultMode: 0440}}
{{- end }}
{{- end -}}

{{- define "gatepost.directories.mounts" -}}
{{- range $name, $directory := .Values.directories }}
{{-   if hasKey $directory "ldap" }}
{{-     if $directory.bindPasswordSecret }}
- {name: directory-{{ $name }}-password, mountPath: /etc/gatepost/directories/{{ $name }}/password, readOnly: true}
{{-     end }}
{{-     if $directory.caSecret }}
- {name: directory-{{ $name }}-ca, mountPath: /etc/gatepost/directories/{{ $name }}/ca, readOnly: true}
{{-     end }}
{{-   else }}
- {name: directory-{{ $name }}, mountPath: /etc/gatepost/directories/{{ $name }}/users, readOnly: true}
{{-   end }}
{{- end }}
{{- end -}}

{{- define "gatepost.directories.volumes" -}}
{{- range $name, $directory := .Values.directories }}
{{-   if hasKey $directory "ldap" }}
{{-     with $directory.bindPasswordSecret }}
- {name: directory-{{ $name }}-password, secret: {secretName: {{ .name }}, defaultMode: 0440}}
{{-     end }}
{{-     with $directory.caSecret }}
- {name: directory-{{ $name }}-ca, secret: {secretName: {{ .name }}, defaultMode: 0440}}
{{-     end }}
{{-   else if $directory.secret }}
- {name: directory-{{ $name }}, secret: {secretName: {{ $directory.secret.name }}, defaultMode: 0440}}
{{-   else }}
- {name: directory-{{ $name }}, configMap: {name: {{ $directory.configMap.name }}}}
{{-   end }}
{{- end }}
{{- end -}}
