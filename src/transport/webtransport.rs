//! WebTransport.
