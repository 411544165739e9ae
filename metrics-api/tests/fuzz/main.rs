//! Bytes that others send, against what must hold whatever they are. See `decoders`.

#[cfg(test)]
mod decoders;
