//! The configuration files of the node's components, as text.

use std::fmt::Write;
use std::path::Path;

use crate::network::{BRIDGE, BRIDGE_ADDRESS, POD_RANGE};

/// The number of volumes that can be claimed at the same time.
pub(crate) const VOLUMES: usize = 16;

/// The kubelet's configuration.
pub(crate) fn kubelet(directory: &Path, socket: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {BRIDGE_ADDRESS}
port: {port}
healthzPort: 0
tlsCertFile: {directory}/certs/kubelet.crt
tlsPrivateKeyFile: {directory}/certs/kubelet.key
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {directory}/certs/ca.crt}}
authorization: {{mode: Webhook}}
containerRuntimeEndpoint: unix://{socket}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [{BRIDGE_ADDRESS}]
resolvConf: \"\"
podLogsDir: {directory}/pods
volumePluginDir: {directory}/volume-plugins
# kube-proxy has its own rules, in nftables.
makeIPTablesUtilChains: false
# A full disk must not evict a test's pods or delete images that no registry has.
evictionHard: {{memory.available: 64Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
",
        socket = socket.display(),
    )
}

/// kube-proxy's configuration. It needs ports for health and metrics on which
/// no other process listens.
pub(crate) fn proxy(directory: &Path, node: &str, health_port: u16, metrics_port: u16) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {node}
clientConnection: {{kubeconfig: {directory}/proxy.kubeconfig}}
clusterCIDR: {POD_RANGE}
detectLocalMode: ClusterCIDR
# Node ports are reachable only on this machine.
nodePortAddresses: [{BRIDGE_ADDRESS}/32]
healthzBindAddress: 127.0.0.1:{health_port}
metricsBindAddress: 127.0.0.1:{metrics_port}
# Do not change the machine's limits.
conntrack: {{maxPerCore: 0, min: 0}}
",
        directory = directory.display(),
    )
}

/// The CNI configuration of the pod network: pods get addresses on the bridge. There is no masquerading, since
/// no packet leaves the machine.
pub(crate) fn pod_network(state: &Path) -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "testbed",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "{BRIDGE}",
      "isGateway": true,
      "ipMasq": false,
      "hairpinMode": true,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{state}/addresses",
        "ranges": [[{{"subnet": "{POD_RANGE}", "gateway": "{BRIDGE_ADDRESS}"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}]
      }}
    }}
  ]
}}
"#,
        state = state.display(),
    )
}

/// CoreDNS' configuration: it resolves the cluster's names and the host's, and no others.
pub(crate) fn dns(directory: &Path) -> String {
    format!(
        "cluster.local:53 in-addr.arpa:53 {{
  bind {BRIDGE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {directory}/dns.kubeconfig
    ttl 5
  }}
}}
testbed.internal:53 {{
  bind {BRIDGE_ADDRESS}
  errors
  hosts {{
    {BRIDGE_ADDRESS} host.testbed.internal
  }}
}}
.:53 {{
  bind {BRIDGE_ADDRESS}
  errors
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
",
        directory = directory.display(),
    )
}

/// The objects to create in the API server: the DNS server's permissions, and volumes. There
/// is no provisioner, so the volumes are created in advance. Their type is `local` and not
/// `hostPath`, since only `local` volumes support a pod's `fsGroup`.
pub(crate) fn manifests(volumes: &Path, node: &str) -> String {
    let mut text = String::from(
        "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local
  annotations: {storageclass.kubernetes.io/is-default-class: \"true\"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: 'testbed:dns'}
rules:
- {apiGroups: [\"\"], resources: [services, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: 'testbed:dns'}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'testbed:dns'}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: 'testbed:dns'}
",
    );
    for number in 1..=VOLUMES {
        text.push_str("---\n");
        text.push_str(&volume(volumes, node, number));
    }
    text
}

/// The name of a volume, and of its directory.
pub(crate) fn volume_name(number: usize) -> String {
    format!("local-{number:02}")
}

fn volume(volumes: &Path, node: &str, number: usize) -> String {
    let name = volume_name(number);
    let mut text = String::new();
    let _ = write!(
        text,
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {{path: {volumes}/{name}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions:
        - {{key: kubernetes.io/hostname, operator: In, values: [{node}]}}
",
        volumes = volumes.display(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_network_is_json() {
        let network: serde_json::Value = serde_json::from_str(&pod_network(Path::new("/run/x"))).unwrap();
        assert_eq!(network["plugins"][0]["bridge"], BRIDGE);
    }

    #[test]
    fn every_volume_is_created() {
        let text = manifests(Path::new("/volumes"), "node");
        assert_eq!(text.matches("kind: PersistentVolume\n").count(), VOLUMES);
        assert!(text.contains("path: /volumes/local-16}"), "{text}");
    }
}
