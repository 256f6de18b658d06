{{/*
gatepost.yaml from values: what the chart knows, with .Values.settings beside it.
Called with (dict "root" $ "delivery" true|false). Relay pods, and mailbox pods that do not route, get the `delivery`
form without directories: they look nobody up, and so need none of the directories' secrets.
*/}}
{{- define "gatepost.settings" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $kafka := dict
      "bootstrapServers" $v.kafka.bootstrapServers
      "replicationFactor" $v.kafka.replicationFactor
      "minInsyncReplicas" $v.kafka.minInsyncReplicas
      "createTopics" $v.kafka.createTopics -}}
{{- if $v.kafka.dev.enabled -}}
{{-   if $v.kafka.bootstrapServers }}{{ fail "kafka.bootstrapServers and kafka.dev.enabled exclude each other" }}{{ end -}}
{{-   $_ := set $kafka "bootstrapServers" (list (printf "%s:9092" (include "gatepost.kafka.host" $root))) -}}
{{-   $_ := set $kafka "replicationFactor" 1 -}}
{{-   $_ := set $kafka "minInsyncReplicas" 1 -}}
{{- else if not $v.kafka.bootstrapServers -}}
{{-   fail "kafka.bootstrapServers is needed: the brokers of your Kafka. For trying out set kafka.dev.enabled=true" -}}
{{- end -}}
{{- if $v.kafka.tls.enabled -}}
{{-   $_ := set $kafka "security" "Tls" -}}
{{-   if $v.kafka.tls.caSecret.name }}{{ $_ := set $kafka "caFile" (printf "/etc/gatepost/kafka-ca/%s" $v.kafka.tls.caSecret.key) }}{{ end -}}
{{-   if $v.kafka.tls.certificateSecret -}}
{{-     $_ := set $kafka "certificateFile" "/etc/gatepost/kafka-tls/tls.crt" -}}
{{-     $_ := set $kafka "keyFile" "/etc/gatepost/kafka-tls/tls.key" -}}
{{-   end -}}
{{- else if $v.kafka.tls.certificateSecret -}}
{{-   fail "kafka.tls.certificateSecret needs kafka.tls.enabled=true" -}}
{{- end -}}
{{- if $v.kafka.sasl.username -}}
{{-   if not $v.kafka.sasl.passwordSecret.name }}{{ fail "kafka.sasl.passwordSecret.name is needed with a username" }}{{ end -}}
{{-   $_ := set $kafka "saslMechanism" $v.kafka.sasl.mechanism -}}
{{-   $_ := set $kafka "username" $v.kafka.sasl.username -}}
{{-   $_ := set $kafka "passwordFile" (printf "/etc/gatepost/kafka-password/%s" $v.kafka.sasl.passwordSecret.key) -}}
{{- end -}}
{{- $log := dict "kafka" $kafka "topicPrefix" (printf "%s.%s." $root.Release.Namespace $root.Release.Name) -}}
{{- $settings := dict
      "hostname" $v.hostname
      "log" $log
      "stores" (include "gatepost.settings.stores" $root | fromYaml)
      "listeners" (include "gatepost.settings.listeners" $root | fromYamlArray)
      "admin" (dict "address" (printf "%s:8025" $v.bindAddress))
      "state" "/var/lib/gatepost"
      "releaseNamespace" $root.Release.Namespace
      "telemetry" (dict "logFormat" "json")
      "domainOwnership" $v.domainOwnership -}}
{{- if not .delivery }}{{ $_ := set $settings "directories" (include "gatepost.settings.directories" $root | fromYaml) }}{{ end -}}
{{- toYaml (mergeOverwrite $settings (deepCopy $v.settings)) -}}
{{- end -}}

{{- define "gatepost.settings.directories" -}}
{{- range $name, $directory := .Values.directories }}
{{-   $where := printf "/etc/gatepost/directories/%s" $name }}
{{-   if hasKey $directory "ldap" }}
{{-     $ldap := deepCopy $directory.ldap }}
{{-     with $directory.bindPasswordSecret }}{{ $_ := set $ldap "bindPasswordFile" (printf "%s/password/%s" $where (default "password" .key)) }}{{ end }}
{{-     with $directory.caSecret }}{{ $_ := set $ldap "caFile" (printf "%s/ca/%s" $where (default "ca.crt" .key)) }}{{ end }}
{{ dict $name (dict "ldap" $ldap) | toYaml }}
{{-   else }}
{{-     $source := default $directory.configMap $directory.secret }}
{{-     $ldif := deepCopy (default dict $directory.ldif) }}
{{-     $_ := set $ldif "file" (printf "%s/users/%s" $where (default "users.ldif" $source.key)) }}
{{ dict $name (dict "ldif" $ldif) | toYaml }}
{{-   end }}
{{- end }}
{{- end -}}

{{- define "gatepost.settings.stores" -}}
{{- range $name, $store := .Values.stores }}
{{-   $hosts := default list $store.mailHosts }}
{{-   if hasKey $store "lmtp" }}
{{ dict $name (dict "lmtp" $store.lmtp "mailHosts" $hosts) | toYaml }}
{{-   else }}
{{ dict $name (dict "maildir" (merge (dict "path" "/var/mail/gatepost/mail") (deepCopy $store.maildir)) "mailHosts" $hosts) | toYaml }}
{{-   end }}
{{- end }}
{{- end -}}

{{/* The Secret of a listener's certificate, or nothing. Called with (dict "root" $ "listener" $listener). */}}
{{- define "gatepost.tlsSecret" -}}
{{- default .root.Values.tls.secretName (default dict .listener.tls).secretName -}}
{{- end -}}

{{- define "gatepost.settings.listeners" -}}
{{- range $name, $listener := .Values.listeners }}
{{-   $entry := dict "name" $name "role" $listener.role "address" (printf "%s:%v" $.Values.bindAddress $listener.containerPort) }}
{{-   $secret := include "gatepost.tlsSecret" (dict "root" $ "listener" $listener) }}
{{-   if $secret }}
{{-     $tls := dict "certificateFile" (printf "/etc/gatepost/tls/%s/tls.crt" $name) "keyFile" (printf "/etc/gatepost/tls/%s/tls.key" $name) }}
{{-     if (default dict $listener.tls).implicit }}{{ $_ := set $tls "implicit" true }}{{ end }}
{{-     $more := list }}
{{-     range $place, $_ := (default dict $listener.tls).moreSecretNames }}
{{-       $folder := printf "/etc/gatepost/tls/%s-%d" $name $place }}
{{-       $more = append $more (dict "certificateFile" (printf "%s/tls.crt" $folder) "keyFile" (printf "%s/tls.key" $folder)) }}
{{-     end }}
{{-     if $more }}{{ $_ := set $tls "certificates" $more }}{{ end }}
{{-     $clients := default dict (default dict $listener.tls).clientCaSecret }}
{{-     if $clients.name }}{{ $_ := set $tls "clientCaFile" (printf "/etc/gatepost/tls/%s-clients/%s" $name (default "ca.crt" $clients.key)) }}{{ end }}
{{-     $_ := set $entry "tls" $tls }}
{{-   else if $listener.tls }}
{{-     fail (printf "listeners.%s.tls needs a certificate: tls.secretName" $name) }}
{{-   end }}
{{-   range $key := list "proxyProtocol" "xclient" }}
{{-     with (default dict (get $listener $key)).trustedNetworks }}{{ $_ := set $entry $key (dict "trustedNetworks" .) }}{{ end }}
{{-   end }}
{{ list $entry | toYaml }}
{{- end }}
{{- end -}}

{{/* The names of a service's listeners, as YAML. Called with (dict "root" $ "name" "edge" "service" $service). */}}
{{- define "gatepost.serviceListeners" -}}
{{- $listeners := .root.Values.listeners -}}
{{- $name := .name -}}
{{- $chosen := default (keys $listeners | sortAlpha) .service.listeners -}}
{{- range $chosen -}}
{{-   if not (hasKey $listeners .) }}{{ fail (printf "services.%s.listeners: there is no listener %q" $name .) }}{{ end -}}
{{- end -}}
{{- toYaml $chosen -}}
{{- end -}}
