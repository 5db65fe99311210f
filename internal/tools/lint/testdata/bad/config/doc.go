// Package config keeps state.
package config
