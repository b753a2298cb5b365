//! Sets how the shared library is linked and, with the feature `header`,
//! writes the C header.
//!
//! The header goes to OUT_DIR; a test compares it with include/evloop.h, and
//! `EVLOOP_UPDATE_HEADER=1` (make header) copies it there.

// It may end where there is no memory; the library may not.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

/// The ABI number in the soname: it changes when old programs must not load
/// the new library. It is not the version of the crate.
const ABI: &str = "0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libevloop.so.{ABI}");
    // Once loaded it stays: threads' descriptors are closed by thread-local
    // destructors whose code dlclose must not unmap.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    #[cfg(feature = "header")]
    header::write();
}

#[cfg(feature = "header")]
#[path = "header/arrange.rs"]
mod arrange;

#[cfg(feature = "header")]
mod header {
    use crate::arrange::arrange;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    pub fn write() {
        println!("cargo:rerun-if-changed=cbindgen.toml");
        println!("cargo:rerun-if-changed=header");
        println!("cargo:rerun-if-changed=src");
        println!("cargo:rerun-if-env-changed=EVLOOP_UPDATE_HEADER");
        if let Err(message) = try_write() {
            // A source that cbindgen cannot parse, rustc cannot either, and
            // says it better.
            println!("cargo:warning=no header was written: {message}");
        }
    }

    fn try_write() -> Result<(), Box<dyn std::error::Error>> {
        let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
        let config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
        let mut bytes = Vec::new();
        cbindgen::Builder::new()
            .with_crate(&root)
            .with_config(config)
            .generate()?
            .write(&mut bytes);
        let generated = block_comments(&String::from_utf8(bytes)?);
        let list = fs::read_to_string(root.join("header/sections.txt"))?;
        let header = match arrange(&generated, &sources(&root.join("src"))?, &list) {
            Ok(header) => header,
            Err(message) => {
                println!("cargo::error={message}");
                return Ok(());
            }
        };
        let path = PathBuf::from(env::var("OUT_DIR")?).join("evloop.h");
        fs::write(&path, &header)?;
        println!("cargo:rustc-env=EVLOOP_GENERATED_HEADER={}", path.display());
        if env::var_os("EVLOOP_UPDATE_HEADER").is_some() {
            update(&root.join("include/evloop.h"), &header)?;
        }
        Ok(())
    }

    /// The text of all Rust sources.
    fn sources(folder: &Path) -> std::io::Result<String> {
        let mut text = String::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                text.push_str(&sources(&path)?);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path)?);
            }
        }
        Ok(text)
    }

    /// Turns cbindgen's own `// comment` at the end of a line into what C89 has.
    fn block_comments(header: &str) -> String {
        let line = |line: &str| match line.split_once("  // ").or(line.split_once(" // ")) {
            Some((code, comment)) if code.starts_with(['#', '}']) => {
                format!("{code} /* {comment} */\n")
            }
            _ => format!("{line}\n"),
        };
        header.lines().map(line).collect()
    }

    /// Leaves the file's time stamp alone when nothing changed.
    fn update(path: &Path, header: &str) -> std::io::Result<()> {
        if fs::read_to_string(path).is_ok_and(|old| old == header) {
            return Ok(());
        }
        fs::write(path, header)
    }
}
