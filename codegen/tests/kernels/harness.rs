//! Emit, link, load and call.

use llmc_codegen::kernel::KernelBuilder;
use llmc_codegen::llvm::Object;
use llmc_codegen::mlir::Session;
use llmc_codegen::target::FeatureLevel;
use llmc_codegen::targets::x86_64::{X86_64_LINUX, host_has};
use std::ffi::{CString, c_void};
use std::io::Write;
use std::process::Command;
use std::sync::Once;

/// The levels that this machine can run; says once which ones it cannot.
pub fn levels() -> Vec<&'static FeatureLevel> {
    static SAID: Once = Once::new();
    let (can, cannot): (Vec<_>, Vec<_>) = X86_64_LINUX
        .levels
        .iter()
        .partition(|l| l.requires.iter().all(|f| host_has(f)));
    SAID.call_once(|| {
        for level in cannot {
            // Past the test harness, which keeps the output of passing tests to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: this machine cannot run {}, its kernels are untested",
                level.name
            );
        }
    });
    can
}

/// Kernels of one module, loaded.
pub struct Loaded {
    handle: *mut c_void,
    pub level: &'static FeatureLevel,
}

impl Loaded {
    pub fn new(level: &'static FeatureLevel, emit: impl FnOnce(&mut KernelBuilder<'_>)) -> Loaded {
        let session = Session::new();
        let mut builder = KernelBuilder::new(&session, level).export_kernels();
        emit(&mut builder);
        let module = builder.finish().expect("the module lowers");
        let object = Object::emit(&module, &X86_64_LINUX, level).expect("the module compiles");

        let dir = tempfile::tempdir().expect("a temporary directory");
        let (input, output) = (dir.path().join("k.o"), dir.path().join("k.so"));
        std::fs::write(&input, &object.bytes).expect("the object is written");
        let status = Command::new("ld.lld-22")
            .args(["-shared", "-z", "defs", "-o"])
            .arg(&output)
            .arg(&input)
            .status()
            .expect("ld.lld-22 runs");
        assert!(status.success(), "the kernels link without libraries");
        let path = CString::new(output.to_str().expect("a UTF-8 path")).expect("no NUL");
        // SAFETY: a shared object without constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "the shared object loads");
        Loaded { handle, level }
    }

    /// The kernel `symbol` as a function pointer of type `F`.
    ///
    /// # Safety
    /// `F` is the kernel's C signature.
    pub unsafe fn get<F: Copy>(&self, symbol: &str) -> F {
        let name = CString::new(symbol).expect("no NUL");
        // SAFETY: the handle is open; F is a function pointer by the caller's promise.
        unsafe {
            let p = libc::dlsym(self.handle, name.as_ptr());
            assert!(!p.is_null(), "kernel `{symbol}` is missing");
            std::mem::transmute_copy(&p)
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: opened in `new`, closed once.
        unsafe { libc::dlclose(self.handle) };
    }
}

/// Loads the same kernels for every level of this machine.
pub fn load_all(emit: impl Fn(&mut KernelBuilder<'_>)) -> Vec<Loaded> {
    levels()
        .into_iter()
        .map(|l| Loaded::new(l, &emit))
        .collect()
}

/// Runs `call(level, threads)` for every level and 1, 2, 3 threads and asserts that the results
/// are bitwise the same; returns the result.
pub fn same_bits(loaded: &[Loaded], mut call: impl FnMut(&Loaded, u64) -> Vec<f32>) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for lib in loaded {
        for threads in [1, 2, 3] {
            let result = call(lib, threads);
            match &first {
                None => first = Some(result),
                Some(first) => {
                    for (i, (a, b)) in first.iter().zip(&result).enumerate() {
                        assert!(
                            a.to_bits() == b.to_bits(),
                            "{} with {threads} threads: float {i} is {b}, not {a}",
                            lib.level.name
                        );
                    }
                }
            }
        }
    }
    first.expect("this machine has a feature level")
}
