//! Counts lines, words and bytes of its input, as small JSON: `{"lines":2,"words":9,"bytes":44,"longest":"fox"}`.
//!
//! The `execute` ABI: the input lies in this module's memory, the answer is a pointer to a 4-byte little-endian
//! length followed by the bytes. A negative answer is an error code of this program.
#![no_std]

use core::fmt::{self, Write};

const MAX_WORD_BYTES: usize = 64;
const OUTPUT_BYTES: usize = 256;
/// More than one event of a contract can carry.
const INPUT_BYTES: usize = 32 * 1024;
const INPUT_IS_NOT_TEXT: i32 = -1;
const OUTPUT_DOES_NOT_FIT: i32 = -2;
const INPUT_IS_TOO_LONG: i32 = -3;

/// The length, then the bytes.
#[repr(C, align(4))]
struct Answer {
    length: u32,
    bytes: [u8; OUTPUT_BYTES],
}

static mut INPUT: [u8; INPUT_BYTES] = [0; INPUT_BYTES];
static mut ANSWER: Answer = Answer { length: 0, bytes: [0; OUTPUT_BYTES] };

struct Output {
    bytes: [u8; OUTPUT_BYTES],
    length: usize,
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The one entry point; the host calls it once.
#[no_mangle]
pub extern "C" fn execute(input_ptr: i32, input_len: i32) -> i32 {
    let Some(input) = own_input(input_ptr as usize, input_len as usize) else {
        return INPUT_IS_TOO_LONG;
    };
    let Ok(text) = core::str::from_utf8(input) else {
        return INPUT_IS_NOT_TEXT;
    };
    let mut output = Output { bytes: [0; OUTPUT_BYTES], length: 0 };
    if describe(text, &mut output).is_err() {
        return OUTPUT_DOES_NOT_FIT;
    }
    // SAFETY: a module has one thread, and the host reads the answer only after this call.
    unsafe {
        let answer = &mut *core::ptr::addr_of_mut!(ANSWER);
        answer.length = output.length as u32;
        answer.bytes = output.bytes;
        core::ptr::addr_of!(ANSWER) as i32
    }
}

/// Copies the input to where Rust allows a slice: the host writes it at address 0, which no reference may have.
fn own_input(start: usize, length: usize) -> Option<&'static [u8]> {
    // SAFETY: a module has one thread, and the host calls it once. Rust keeps the lowest megabyte of memory for its
    // stack, which grows down from its top, so the input at its bottom is whole.
    unsafe {
        let own = (*core::ptr::addr_of_mut!(INPUT)).get_mut(..length)?;
        for (offset, byte) in own.iter_mut().enumerate() {
            *byte = core::ptr::read_volatile(core::hint::black_box(start + offset) as *const u8);
        }
        Some(own)
    }
}

fn describe(text: &str, output: &mut Output) -> fmt::Result {
    let words = text.split_whitespace();
    let longest = words.clone().filter(|word| is_plain(word)).fold("", |best, word| if word.len() > best.len() { word } else { best });
    write!(
        output,
        "{{\"lines\":{},\"words\":{},\"bytes\":{},\"longest\":\"{}\"}}",
        text.lines().count(),
        words.count(),
        text.len(),
        longest,
    )
}

/// A word that JSON needs no escape for.
fn is_plain(word: &str) -> bool {
    word.len() <= MAX_WORD_BYTES && !word.chars().any(|letter| letter.is_control() || letter == '"' || letter == '\\')
}

#[cfg(target_family = "wasm")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
