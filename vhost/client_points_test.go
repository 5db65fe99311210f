package vhost

import "github.com/vtgt/vtgt/vhost/vring"

// WithPoints has an Export call f at every point of the requests of its rings.
func WithPoints(c Config, f func(queue int, p vring.Point)) Config {
	c.points = f
	return c
}
