{{/* Ports of a rule, from a list of numbers. */}}
{{- define "orders.network.tcp" -}}
{{- range . | uniq }}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end }}

{{/* The port in a URL; empty if the URL has none. */}}
{{- define "orders.network.urlPort" -}}
{{- $authority := regexReplaceAll "^[a-z]+://([^/?@]*@)?([^/?]*).*$" . "${2}" -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" }}
{{- end }}

{{/* Ingress rule for the clients that may read metrics. Probes come from the node and are always allowed. */}}
{{- define "orders.network.metrics" -}}
{{- with .Values.networkPolicy.metricsFrom -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - {protocol: TCP, port: admin}
{{- end }}
{{- end }}

{{/* Egress rules of every service: DNS, and the Kubernetes API, which no selector can match. */}}
{{- define "orders.network.base" -}}
- ports:
    {{- range .Values.networkPolicy.ports.dns }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
- ports:
    {{- include "orders.network.tcp" .Values.networkPolicy.ports.kubeApi | trim | nindent 4 }}
{{- end }}

{{/* A peer that matches the pods of one component of this release. Argument: a component. */}}
{{- define "orders.network.peer" -}}
- podSelector:
    matchLabels:
      {{- include "orders.component.selector" . | nindent 6 }}
{{- end }}

{{/* Egress rule for a PostgreSQL database, at any address. Argument: a component. */}}
{{- define "orders.network.database" -}}
{{- if not (include "orders.database.isSqlite" .) }}
{{- $ports := .root.Values.networkPolicy.ports.database }}
{{- if .values.database.host }}
{{- $ports = append $ports (int .values.database.port) }}
{{- end -}}
{{- with include "orders.network.urlPort" .values.database.url }}
{{- $ports = append $ports (int .) }}
{{- end -}}
- ports:
    {{- include "orders.network.tcp" $ports | trim | nindent 4 }}
{{- end }}
{{- end }}

{{/* Egress rule for the broker: the chart's own pods, or any address. Empty for services that do not use a broker. Argument: a component. */}}
{{- define "orders.network.nats" -}}
{{- if not (include "orders.nats.usedBy" .) }}
{{- else if include "orders.nats.bundled" .root -}}
- to:
    {{- include "orders.network.peer" (dict "root" .root "name" "nats") | nindent 4 }}
  ports:
    - {protocol: TCP, port: nats}
{{- else }}
{{- $ports := .root.Values.networkPolicy.ports.nats }}
{{- with include "orders.network.urlPort" .root.Values.nats.url }}
{{- $ports = append $ports (int .) }}
{{- end -}}
- ports:
    {{- include "orders.network.tcp" $ports | trim | nindent 4 }}
{{- end }}
{{- end }}
