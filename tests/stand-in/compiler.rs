//! A stand-in for NVRTC, the library that compiles kernels: each program comes to the same few words, which the stand-in
//! for the driver takes. It has those functions alone that the program calls.
//!
//! `rustc --edition 2024 -O --crate-type cdylib -o libnvrtc.so compiler.rs` builds it. Where the environment names a
//! file as `STAND_IN_COMPILED`, that gets a line for each compilation: the name of the kernel.
#![crate_type = "cdylib"]
#![allow(non_snake_case, reason = "the names of the library's functions")]

use std::{
    env,
    ffi::{CStr, c_char, c_int, c_void},
    fs::OpenOptions,
    io::Write as _,
    ptr,
};

/// What every function of the library returns.
type Answer = c_int;

const SUCCESS: Answer = 0;
const INVALID_INPUT: Answer = 3;
const INVALID_PROGRAM: Answer = 4;

/// What every program comes to.
const COMPILED: &CStr = c".version 9.0\n.target sm_90\n.address_size 64\n";

struct Program {
    kernel: String,
}

/// Writes an answer where the caller wants it.
fn give<T>(place: *mut T, value: T) -> Answer {
    if place.is_null() {
        return INVALID_INPUT;
    }
    // SAFETY: the caller's place for this answer.
    unsafe { ptr::write(place, value) };
    SUCCESS
}

/// The word before the first bracket after `__global__`, apart from its launch bounds.
fn kernel_of(source: &str) -> Option<&str> {
    let declared = source.split_once("__global__")?.1;
    let declared = match declared.split_once("__launch_bounds__") {
        Some((before, after)) if !before.contains('{') => after.split_once(')')?.1,
        _ => declared,
    };
    declared.split_once('(')?.0.split_whitespace().next_back()
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcVersion(major: *mut c_int, minor: *mut c_int) -> Answer {
    give(major, 13).max(give(minor, 0))
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcCreateProgram(
    place: *mut *mut Program,
    source: *const c_char,
    _name: *const c_char,
    _header_count: c_int,
    _headers: *const *const c_char,
    _header_names: *const *const c_char,
) -> Answer {
    if place.is_null() || source.is_null() {
        return INVALID_INPUT;
    }
    // SAFETY: the caller's text.
    let source = unsafe { CStr::from_ptr(source) }.to_string_lossy();
    let kernel = kernel_of(&source).unwrap_or("?").to_owned();
    give(place, Box::into_raw(Box::new(Program { kernel })))
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcCompileProgram(program: *const Program, _count: c_int, _options: *const *const c_char) -> Answer {
    // SAFETY: what was given out for a program stays until it is destroyed.
    let Some(program) = (unsafe { program.as_ref() }) else { return INVALID_PROGRAM };
    if let Some(path) = env::var_os("STAND_IN_COMPILED")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
    {
        // In one piece, so that no two mix.
        let _ = file.write_all(format!("{}\n", program.kernel).as_bytes());
    }
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcDestroyProgram(place: *mut *mut Program) -> Answer {
    if place.is_null() {
        return INVALID_PROGRAM;
    }
    // SAFETY: the caller's place of a program that was given out, which it uses no more.
    unsafe {
        if !(*place).is_null() {
            drop(Box::from_raw(*place));
        }
        *place = ptr::null_mut();
    }
    SUCCESS
}

// What was compiled, and what was said meanwhile, which is nothing.

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetPTXSize(_program: *const c_void, place: *mut usize) -> Answer {
    give(place, COMPILED.count_bytes() + 1)
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetPTX(_program: *const c_void, place: *mut c_char) -> Answer {
    put(COMPILED, place)
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetProgramLogSize(_program: *const c_void, place: *mut usize) -> Answer {
    give(place, 1)
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetProgramLog(_program: *const c_void, place: *mut c_char) -> Answer {
    put(c"", place)
}

fn put(text: &CStr, place: *mut c_char) -> Answer {
    if place.is_null() {
        return INVALID_INPUT;
    }
    // SAFETY: the caller has asked for its length and made room.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), place, text.count_bytes() + 1) };
    SUCCESS
}
