// Package vhost is fine itself.
package vhost
