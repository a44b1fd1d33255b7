//! contestants
