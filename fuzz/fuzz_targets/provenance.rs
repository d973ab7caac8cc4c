//! Any bytes: the header's reader neither panics nor accepts what it would write otherwise.

#![no_main]

use countersign::provenance::Provenance;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Ok(provenance) = Provenance::read(value) else { return };
    let mut written = String::new();
    provenance.write(&mut written);
    assert_eq!(Provenance::read(written.as_bytes()), Ok(provenance));
});
