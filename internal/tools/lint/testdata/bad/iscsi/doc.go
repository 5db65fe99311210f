// Package iscsi looks sideways.
package iscsi
