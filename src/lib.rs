//! Stockade: runs code you do not trust on a Linux host you own.

#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod confine;
pub mod doctor;
pub mod error;
pub mod id;
pub mod image;
pub mod limits;
pub mod roles;
pub mod runtime;
pub mod sandbox;
pub mod startup;
pub mod sys;
pub mod wire;
