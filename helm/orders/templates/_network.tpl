{{/* Ports of a rule, from a list of numbers. */}}
{{- define "orders.network.tcp" -}}
{{- range . | uniq }}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
{{- end }}

{{/* The port in a URL, or empty. */}}
{{- define "orders.network.urlPort" -}}
{{- $authority := regexReplaceAll "^[a-z]+://([^/?@]*@)?([^/?]*).*$" . "${2}" -}}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" }}
{{- end }}

{{/* Who may read metrics; probes come from the node and are always allowed. */}}
{{- define "orders.network.metrics" -}}
{{- with .Values.networkPolicy.metricsFrom -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - {protocol: TCP, port: admin}
{{- end }}
{{- end }}

{{/* What every service needs: names, and the Kubernetes API, which no selector can name. */}}
{{- define "orders.network.base" -}}
- ports:
    {{- range .Values.networkPolicy.ports.dns }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
- ports:
    {{- include "orders.network.tcp" .Values.networkPolicy.ports.kubeApi | trim | nindent 4 }}
{{- end }}

{{/* A peer: pods of one component of this release. Takes a component. */}}
{{- define "orders.network.peer" -}}
- podSelector:
    matchLabels:
      {{- include "orders.component.selector" . | nindent 6 }}
{{- end }}

{{/* A PostgreSQL database, wherever it is. Takes a component. */}}
{{- define "orders.network.database" -}}
{{- if not (include "orders.database.isSqlite" .) }}
{{- $ports := .root.Values.networkPolicy.ports.database }}
{{- with include "orders.network.urlPort" .values.database.url }}
{{- $ports = append $ports (int .) }}
{{- end -}}
- ports:
    {{- include "orders.network.tcp" $ports | trim | nindent 4 }}
{{- end }}
{{- end }}
