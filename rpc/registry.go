package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Registry holds the methods of a server. Make it with [NewRegistry]. Methods
// may be added at any time; the hooks are set before the first call.
type Registry struct {
	// Unknown answers calls of methods that are not registered, and
	// system.methodHelp for them: forwarding to another server. False means
	// that it does not know the method either. Its error is told as a
	// handler's. nil = no forwarding.
	Unknown func(ctx context.Context, c *Call) (v any, known bool, err error)

	// UnknownNames returns the names that Unknown knows, for
	// system.listMethods; none when the other server is away.
	UnknownNames func(ctx context.Context) []string

	// OnCall is told of each call after it was answered, with the handler's
	// own error: for counters and for logging what the caller is not told.
	OnCall func(ctx context.Context, c *Call, err error, took time.Duration)

	mu      sync.RWMutex // covers methods
	methods map[string]Method
}

// NewRegistry returns a Registry that knows system.listMethods,
// system.methodHelp and system.methodSignature.
func NewRegistry() *Registry {
	r := &Registry{methods: make(map[string]Method)}
	for _, m := range r.system() {
		r.methods[m.Name] = m
	}
	return r
}

// Register adds a method. A name can be taken once, and needs a handler.
func (r *Registry) Register(m Method) error {
	if m.Name == "" || m.Handler == nil {
		return fmt.Errorf("rpc: method %q: name or handler missing", m.Name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, dup := r.methods[m.Name]; dup {
		return fmt.Errorf("rpc: method %q: registered twice", m.Name)
	}
	r.methods[m.Name] = m
	return nil
}

// Lookup returns the registered method of that name.
func (r *Registry) Lookup(name string) (Method, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok := r.methods[name]
	return m, ok
}

// Names returns the names of the registered methods, sorted.
func (r *Registry) Names() []string {
	r.mu.RLock()
	names := make([]string, 0, len(r.methods))
	for name := range r.methods {
		names = append(names, name)
	}
	r.mu.RUnlock()
	slices.Sort(names)
	return names
}

// Call runs a method. The error is [ErrUnknownMethod] or a [*Fault], never
// another: for what else a handler says, and for a panic, it is [ErrInternal],
// and OnCall is told the rest.
func (r *Registry) Call(ctx context.Context, c *Call) (any, error) {
	start := time.Now()
	v, err := r.run(ctx, c)
	if r.OnCall != nil {
		r.OnCall(ctx, c, err, time.Since(start))
	}
	if err == nil {
		return v, nil
	}
	if errors.Is(err, ErrUnknownMethod) {
		return nil, ErrUnknownMethod
	}
	return nil, AsFault(err)
}

func (r *Registry) run(ctx context.Context, c *Call) (v any, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, &PanicError{Method: c.Method, Value: p, Stack: debug.Stack()}
		}
	}()
	m, ok := r.Lookup(c.Method)
	if !ok {
		return r.unknown(ctx, c)
	}
	if v, err = m.Handler(ctx, c); err != nil {
		return nil, err
	}
	if err = check(v); err != nil || !m.Array {
		return v, err
	}
	switch v := v.(type) {
	case List, Forwarded:
		return v, nil
	case Records:
		return List(v), nil
	case nil:
		return List{}, nil
	}
	return List{v}, nil
}

func (r *Registry) unknown(ctx context.Context, c *Call) (any, error) {
	if r.Unknown != nil {
		if v, known, err := r.Unknown(ctx, c); known || err != nil {
			return v, err
		}
	}
	return nil, ErrUnknownMethod
}
