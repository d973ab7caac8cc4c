fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n: u64 = a[3].parse().unwrap();
    countersign_testkit::reader::load(
        &a[1],
        &a[2],
        n,
        std::time::Duration::from_secs(60),
        |i| countersign_testkit::reader::LoadRecord {
            partition: None,
            key: Some(format!("k{}", i % 97).into_bytes()),
            value: Some(format!("v{i}").into_bytes()),
        },
        |_| {},
    )
    .unwrap();
}
