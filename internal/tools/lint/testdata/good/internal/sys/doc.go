// Package sys is low.
package sys
