// Package ibmvio is not formatted.
package ibmvio
