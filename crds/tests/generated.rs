//! The CRD that the chart ships is the one that the code generates.

use std::process::Command;

#[test]
fn the_chart_ships_the_crd_that_crdgen_writes() {
    let generated = Command::new(env!("CARGO_BIN_EXE_crdgen")).output().expect("crdgen runs").stdout;
    let shipped =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/orders/crds-generated/orders.arch.homework.yaml"))
            .expect("the chart has the CRD");
    assert!(shipped == String::from_utf8_lossy(&generated), "the CRD changed: run `make generate` and commit the result");
}
