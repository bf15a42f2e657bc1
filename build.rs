//! Compiles the C++ shim against libtorch's headers and links libtorch so that the binary finds it by rpath.
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=src/ffi");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // Not through the link ./libtorch: the binary keeps the libtorch it was built with wherever the clone goes.
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names libtorch's lib directory");
    let lib = std::fs::canonicalize(&lib).unwrap_or_else(|error| panic!("{lib}: {error}; run scripts/setup"));
    let root = lib.parent().expect("libtorch/lib has a parent");
    compile_shim(root);
    link(&lib);
}

fn compile_shim(root: &Path) {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        // Vectorised loops also where the crate is built for debugging.
        .opt_level(3);
    // libtorch's parallel loops are templates over OpenMP and run on its threads, GCC's. clang's are others: there the shim's
    // own loops run on one thread.
    let gcc = !build.get_compiler().is_like_clang();
    if gcc {
        build.flag("-fopenmp");
    }
    for name in [
        "attention",
        "checkpoint",
        "decode",
        "embedding",
        "feed",
        "head",
        "memory",
        "product",
        "readback",
        "rows",
        "shim",
    ] {
        build.file(format!("src/ffi/{name}.cpp"));
    }
    let kernels = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if kernels {
        build.define("COLLIMATE_KERNELS", None);
    }
    let split = kernels && MATRIX_UNIT.iter().all(|flag| build.is_flag_supported(flag).unwrap_or(false));
    if split {
        build.define("COLLIMATE_SPLIT", None);
    }
    build.compile("collimate_shim");
    if split {
        // After the shim, which calls them: the linker looks for a name in what comes later.
        plain_build(MATRIX_UNIT).file("src/ffi/split.cpp").compile("collimate_split");
    }
    if kernels {
        compile_kernels("avx512", "16", &["-mavx512f", "-mfma"]);
        compile_kernels("avx2", "8", &["-mavx2", "-mfma"]);
    }
    if gcc {
        // The OpenMP that libtorch brings along: the rpath finds it under this name.
        println!("cargo:rustc-link-lib=gomp");
    }
}

/// What a compiler needs to know to use the processor's matrix unit for bfloat16.
const MATRIX_UNIT: &[&str] = &["-mavx512f", "-mamx-tile", "-mamx-bf16"];

/// Without libtorch's headers, for processors that have what `flags` names; which one it is shows when the program runs.
fn plain_build(flags: &[&str]) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").warnings(false).opt_level(3);
    flags.iter().for_each(|flag| _ = build.flag(flag));
    build
}

/// The decoding loops for one instruction set.
fn compile_kernels(variant: &str, lanes: &str, flags: &[&str]) {
    let mut build = plain_build(flags);
    build.flag("-ffp-contract=fast").define("VARIANT", variant).define("LANES", lanes);
    build.file("src/ffi/kernels.cpp").compile(&format!("collimate_kernels_{variant}"));
}

fn link(lib: &Path) {
    let cuda = lib.join("libtorch_cuda.so").exists();
    println!("cargo:rustc-env=COLLIMATE_CUDA_BUILD={}", if cuda { "yes" } else { "no" });
    println!("cargo:rustc-link-search=native={}", lib.display());
    for arg in [format!("-Wl,-rpath,{}", lib.display()), "-Wl,--no-as-needed".into(), "-ltorch".into()] {
        println!("cargo:rustc-link-arg={arg}");
    }
    if cuda {
        // Nothing in our objects names a CUDA symbol, so the linker would drop it as unneeded and no GPU would be seen.
        println!("cargo:rustc-link-arg=-ltorch_cuda");
    }
    println!("cargo:rustc-link-arg=-Wl,--as-needed");
}
