//! The network of the node: one bridge to which pods are connected, and nftables rules
//! that keep its traffic on this machine.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::command::{SHORT_TIMEOUT, on_path, run, run_with_input};

/// The host's address for pods. Pods can reach servers that listen on it, and can resolve it as
/// `host.testbed.internal`.
pub const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

pub(crate) const BRIDGE: &str = "orders0";
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";

/// Pods can reach each other, Services and the host, and nothing else. No other machine
/// can use this machine as a router to them.
const RULES: &str = "
table inet orders_testbed
delete table inet orders_testbed
table inet orders_testbed {
  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    iifname \"orders0\" oifname != \"orders0\" reject with icmpx admin-prohibited
    iifname != \"orders0\" oifname \"orders0\" drop
  }
}
";

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Creates the bridge, and routes the pod and Service ranges to it. Packets to a ClusterIP
/// that no rule translates yet are dropped there and do not follow the default route.
pub(crate) async fn up(state: &Path) -> Result<()> {
    check_ranges(&run("ip", ["-json", "route", "show", "table", "main"]).await?)?;
    if !Path::new("/sys/class/net").join(BRIDGE).exists() {
        run("ip", ["link", "add", BRIDGE, "type", "bridge"]).await?;
    }
    let address = format!("{BRIDGE_ADDRESS}/16");
    run("ip", ["address", "replace", &address, "dev", BRIDGE]).await?;
    run("ip", ["link", "set", BRIDGE, "up"]).await?;
    run("ip", ["route", "replace", SERVICE_RANGE, "dev", BRIDGE, "src", &BRIDGE_ADDRESS.to_string()]).await?;
    filter_bridge().await?;
    let forwarding = fs::read_to_string(FORWARDING)?;
    let saved = state.join("ip_forward");
    if !saved.exists() {
        fs::write(saved, &forwarding)?;
    }
    fs::write(FORWARDING, "1").context("cannot enable IP forwarding")?;
    run_with_input(SHORT_TIMEOUT, Command::new("nft").args(["-f", "-"]), Some(RULES)).await?;
    update_docker_exception("-I").await
}

/// Removes everything that [`up`] and kube-proxy set up.
pub(crate) async fn down(state: &Path) -> Result<()> {
    for table in [["inet", "orders_testbed"], ["ip", "kube-proxy"], ["ip6", "kube-proxy"]] {
        // The table may not exist, after an interrupted start.
        let _ = run("nft", ["delete", "table", table[0], table[1]]).await;
    }
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        let _ = update_docker_exception("-D").await;
        run("ip", ["link", "delete", BRIDGE]).await?;
    }
    if let Ok(forwarding) = fs::read_to_string(state.join("ip_forward")) {
        fs::write(FORWARDING, forwarding)?;
    }
    Ok(())
}

/// Applies the rules to bridged packets, too: in the response of a Service's pod to
/// another pod, the source address must be translated back.
async fn filter_bridge() -> Result<()> {
    if !Path::new(BRIDGE_FILTER).exists() {
        let _ = run("modprobe", ["br_netfilter"]).await;
    }
    fs::write(BRIDGE_FILTER, "1")
        .with_context(|| format!("cannot write {BRIDGE_FILTER}; the kernel module br_netfilter is needed"))
}

/// Adds (`-I`) or removes (`-D`) a rule that accepts forwarded packets of the bridge, since Docker sets the default policy of forwarding to "drop".
async fn update_docker_exception(action: &str) -> Result<()> {
    if !on_path("iptables") {
        return Ok(());
    }
    let rules = run("iptables", ["-w", "-S", "FORWARD"]).await.unwrap_or_default();
    let rule = ["-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
    let present = rules.contains(&rule.join(" "));
    if rules.contains("-P FORWARD DROP") && present == (action == "-D") {
        run("iptables", [&["-w", action, "FORWARD"][..], &rule].concat()).await?;
    }
    Ok(())
}

/// Fails if this machine already uses the address ranges for something else.
fn check_ranges(routes: &str) -> Result<()> {
    let routes: Vec<Value> = serde_json::from_str(routes).context("cannot read the routes")?;
    for route in routes {
        let (destination, device) = (route["dst"].as_str().unwrap_or_default(), route["dev"].as_str().unwrap_or_default());
        let taken = [POD_RANGE, SERVICE_RANGE].into_iter().find(|range| overlap(range, destination));
        if let (Some(range), true) = (taken, device != BRIDGE) {
            bail!(
                "the test cluster needs the range {range}, but this machine routes {destination} to {device}; remove that network, or use CLUSTER=kind"
            );
        }
    }
    Ok(())
}

fn overlap(one: &str, other: &str) -> bool {
    let (Some((one, one_bits)), Some((other, other_bits))) = (parse(one), parse(other)) else { return false };
    let bits = one_bits.min(other_bits);
    // The default route overlaps with every range, so it does not count. A shift by 32 would overflow.
    bits > 0 && one >> (32 - bits) == other >> (32 - bits)
}

/// Parses an IPv4 range into its address as a number and its prefix length. A single address is a range of one.
fn parse(range: &str) -> Option<(u32, u32)> {
    let (address, bits) = range.split_once('/').unwrap_or((range, "32"));
    Some((address.parse::<Ipv4Addr>().ok()?.into(), bits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_if_one_contains_the_other() {
        assert!(overlap("10.244.0.0/16", "10.244.3.0/24"));
        assert!(overlap("10.244.0.0/16", "10.0.0.0/8"));
        assert!(overlap("10.96.0.0/16", "10.96.0.10"));
        assert!(!overlap("10.244.0.0/16", "10.245.0.0/16"));
        assert!(!overlap("10.244.0.0/16", "default"));
        assert!(!overlap("10.244.0.0/16", "0.0.0.0/0"));
    }

    #[test]
    fn a_range_in_use_is_refused_unless_the_bridge_uses_it() {
        assert!(check_ranges(r#"[{"dst":"default","dev":"eth0"},{"dst":"10.244.0.0/16","dev":"orders0"}]"#).is_ok());
        let error = check_ranges(r#"[{"dst":"10.96.0.0/12","dev":"tun0"}]"#).unwrap_err().to_string();
        assert!(error.contains("tun0"), "{error}");
    }
}
