package vsphere

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Error is a failure for its user: what it is about, what is wrong, what to do next.
type Error struct {
	Object, Message, Hint string
	Err                   error
}

func (e *Error) Error() string {
	s := e.Object + ": " + e.Message
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(object, hint, format string, args ...any) *Error {
	return &Error{Object: object, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// vimFault is the fault in an answer of the API, nil if err is none.
func vimFault(err error) types.BaseMethodFault {
	var te task.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &te):
		return te.Fault()
	case soap.IsVimFault(err):
		return soap.ToVimFault(err)
	case soap.IsSoapFault(err):
		switch f := soap.ToSoapFault(err).VimFault().(type) {
		case types.BaseMethodFault:
			return f
		case nil:
			return nil
		default:
			// Faults are values here, and their methods are the pointer's.
			p := reflect.New(reflect.TypeOf(f))
			p.Elem().Set(reflect.ValueOf(f))
			b, _ := p.Interface().(types.BaseMethodFault)
			return b
		}
	}
	return nil
}

// is tells whether err is a fault of type T.
func is[T any](err error) bool {
	_, ok := any(vimFault(err)).(*T)
	return ok
}

// because is a failed call of the API, with the API's own words.
func because(object, what, hint string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	msg := err.Error()
	if f := vimFault(err); f != nil {
		name := reflect.TypeOf(f).Elem().Name()
		words := []string{}
		if soap.IsSoapFault(err) {
			words = append(words, soap.ToSoapFault(err).String)
		} else {
			words = append(words, err.Error())
		}
		for _, m := range f.GetMethodFault().FaultMessage {
			if m.Message != "" && !strings.Contains(strings.Join(words, " "), m.Message) {
				words = append(words, m.Message)
			}
		}
		msg = strings.TrimSpace(strings.Join(words, ": "))
		switch f.(type) {
		case *types.NoPermission:
			hint = "give the user the privilege " + f.(*types.NoPermission).PrivilegeId + " on it, then again"
		case *types.NotAuthenticated:
			hint = "the session has ended: do it again"
		}
		if msg == "" {
			msg = name
		} else if !strings.Contains(msg, name) {
			msg += " (" + name + ")"
		}
	}
	return &Error{Object: object, Message: what + ": " + msg, Hint: hint, Err: err}
}
