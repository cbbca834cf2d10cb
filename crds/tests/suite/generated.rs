//! The CRDs that the chart ships are those that the code generates.

use std::process::Command;

use kube::ResourceExt;

#[test]
fn the_chart_ships_the_crds_that_crdgen_writes() {
    for name in orders_crds::all().iter().map(ResourceExt::name_any) {
        let generated = Command::new(env!("CARGO_BIN_EXE_crdgen")).arg(&name).output().expect("crdgen runs").stdout;
        let file = format!("{}/../helm/orders/crds-generated/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let shipped = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            shipped == String::from_utf8_lossy(&generated),
            "the CRD {name} changed: run `make generate` and commit the result"
        );
    }
}
