//! Compiles `proto/**/*.proto` without a protoc binary: protox parses, tonic-prost-build generates.

use std::path::PathBuf;

const FILES: [&str; 12] = [
    "sateen/common/v1/common.proto",
    "sateen/common/v1/fsck.proto",
    "sateen/mds/v1/capabilities.proto",
    "sateen/mds/v1/changelog.proto",
    "sateen/mds/v1/cluster.proto",
    "sateen/mds/v1/locks.proto",
    "sateen/mds/v1/maintenance.proto",
    "sateen/mds/v1/namespace.proto",
    "sateen/mds/v1/repository.proto",
    "sateen/mds/v1/writeback.proto",
    "sateen/oss/v1/object_store.proto",
    "sateen/oss/v1/maintenance.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=sateen");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // Payloads are shared, not copied, once they are in memory.
        .bytes(".sateen.oss.v1.WriteRequest.payload")
        .bytes(".sateen.oss.v1.WriteManyRequest.payload")
        .bytes(".sateen.oss.v1.ReadReply.payload")
        .bytes(".sateen.oss.v1.ReadManyReply.payload")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
