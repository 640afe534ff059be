//! What a model folder holds, ready to run; names, types and ranks are read from it, never assumed.

pub mod tokenizer;
