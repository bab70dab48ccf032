//! Takes words out of response bodies: each one that the configuration names becomes `[redacted]`.
//!
//! The configuration is a text with one word (or sentence) a line. Bodies arrive in pieces, and a word may be cut in
//! two by them, so the body is held back until it is complete: the filter answers "pause" to each piece, and the proxy
//! keeps what has come. At the end the filter reads all of it, writes it anew, and lets it go.
//!
//! Written for ABI 0.2.1 with nothing but Rust's standard library. Everything unsafe is in the module `host`.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// What stands in the place of a word.
const REPLACEMENT: &[u8] = b"[redacted]";

const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;

/// What the filter remembers. A module has one thread, so a cell is enough.
#[derive(Default)]
struct State {
    words: Vec<Vec<u8>>,
    /// The streams whose response is to be rewritten.
    rewriting: BTreeSet<u32>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn with_state<R>(work: impl FnOnce(&mut State) -> R) -> R {
    STATE.with(|state| work(&mut state.borrow_mut()))
}

/// `body` with every word replaced; None when none of them is in it. The first word in the list wins.
fn redact(body: &[u8], words: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(body.len());
    let mut found = 0;
    let mut rest = body;
    while !rest.is_empty() {
        match words.iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                clean.extend_from_slice(REPLACEMENT);
                rest = &rest[word.len()..];
                found += 1;
            }
            None => {
                clean.push(rest[0]);
                rest = &rest[1..];
            }
        }
    }
    if found > 0 {
        host::log(host::INFO, &format!("redacted {} in {} bytes", found, body.len()));
        Some(clean)
    } else {
        None
    }
}

/// Says which version of the ABI this is written for; never called.
#[no_mangle]
pub extern "C" fn proxy_abi_version_0_2_1() {}

#[no_mangle]
pub extern "C" fn proxy_on_configure(_plugin: u32, size: u32) -> u32 {
    let text = host::buffer(host::PLUGIN_CONFIGURATION, 0, size).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let words: Vec<Vec<u8>> = lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    if words.is_empty() {
        host::log(host::ERROR, "the configuration names no words");
        return 0; // the proxy does not start a plugin that refuses its configuration
    }
    with_state(|state| state.words = words);
    1
}

#[no_mangle]
pub extern "C" fn proxy_on_request_headers(_stream: u32, _count: u32, _end_of_stream: u32) -> u32 {
    // A compressed body cannot be searched: ask the upstream for a plain one.
    host::remove_header(host::REQUEST_HEADERS, "accept-encoding");
    CONTINUE
}

#[no_mangle]
pub extern "C" fn proxy_on_response_headers(stream: u32, _count: u32, end_of_stream: u32) -> u32 {
    let kind = host::header(host::RESPONSE_HEADERS, "content-type").unwrap_or_default();
    let is_text = kind.starts_with(b"text/") || kind.starts_with(b"application/json");
    if end_of_stream == 0 && is_text {
        // The length may change, and the headers leave before the body is known: it will be sent in chunks.
        host::remove_header(host::RESPONSE_HEADERS, "content-length");
        with_state(|state| state.rewriting.insert(stream));
    }
    CONTINUE
}

#[no_mangle]
pub extern "C" fn proxy_on_response_body(stream: u32, size: u32, end_of_stream: u32) -> u32 {
    if !with_state(|state| state.rewriting.contains(&stream)) {
        return CONTINUE;
    }
    if end_of_stream == 0 {
        return PAUSE; // `size` grows from call to call; the last one has everything
    }
    // Not inside `with_state`: the proxy calls back into this module for memory.
    let body = host::buffer(host::RESPONSE_BODY, 0, size).unwrap_or_default();
    if let Some(clean) = with_state(|state| redact(&body, &state.words)) {
        host::set_buffer(host::RESPONSE_BODY, 0, size, &clean);
    }
    CONTINUE
}

#[no_mangle]
pub extern "C" fn proxy_on_delete(context: u32) {
    with_state(|state| state.rewriting.remove(&context));
}

/// The proxy's functions in Rust's own types.
mod host {
    use std::alloc::Layout;

    pub const INFO: u32 = 2;
    pub const ERROR: u32 = 4;
    pub const REQUEST_HEADERS: u32 = 0;
    pub const RESPONSE_HEADERS: u32 = 2;
    pub const RESPONSE_BODY: u32 = 1;
    pub const PLUGIN_CONFIGURATION: u32 = 7;
    const OK: u32 = 0;

    #[link(wasm_import_module = "env")]
    extern "C" {
        fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
        fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
        fn proxy_get_buffer_bytes(
            buffer: u32,
            start: u32,
            length: u32,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        fn proxy_set_buffer_bytes(buffer: u32, start: u32, length: u32, data: *const u8, size: usize) -> u32;
    }

    /// Memory for what the proxy hands out. Whoever gets the data owns it: see `received`.
    #[export_name = "malloc"]
    pub extern "C" fn give_memory(size: usize) -> *mut u8 {
        match Layout::array::<u8>(size) {
            Ok(layout) if size > 0 => unsafe { std::alloc::alloc(layout) },
            _ => std::ptr::null_mut(),
        }
    }

    /// What a call has left behind, as a value that frees itself.
    fn received(status: u32, data: *mut u8, size: usize) -> Option<Vec<u8>> {
        if status != OK {
            return None;
        }
        if data.is_null() || size == 0 {
            return Some(Vec::new());
        }
        // Sound because the block came from `give_memory`, with just this size.
        Some(unsafe { Vec::from_raw_parts(data, size, size) })
    }

    pub fn log(level: u32, text: &str) {
        unsafe { proxy_log(level, text.as_ptr(), text.len()) };
    }

    pub fn header(map: u32, name: &str) -> Option<Vec<u8>> {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_header_map_value(map, name.as_ptr(), name.len(), &mut data, &mut size) };
        received(status, data, size)
    }

    pub fn remove_header(map: u32, name: &str) {
        unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) };
    }

    pub fn buffer(which: u32, start: u32, length: u32) -> Option<Vec<u8>> {
        let (mut data, mut size) = (std::ptr::null_mut(), 0);
        let status = unsafe { proxy_get_buffer_bytes(which, start, length, &mut data, &mut size) };
        received(status, data, size)
    }

    /// Put `data` in the place of `length` bytes from `start`.
    pub fn set_buffer(which: u32, start: u32, length: u32, data: &[u8]) {
        unsafe { proxy_set_buffer_bytes(which, start, length, data.as_ptr(), data.len()) };
    }
}
