//! Any bytes in the place of a stored record: they are read or refused, and never panic.
//! Input: the length of the key in one byte, the key, and the value.

#![no_main]

use countersign::store::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&len, rest)) = input.split_first() else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(len)));
    if let Ok(record) = Record::read(key, value) {
        assert_eq!(Record::read(key, value), Ok(record), "reading has no memory");
    }
});
