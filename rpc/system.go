package rpc

import (
	"context"
	"errors"
	"slices"
)

// system returns the methods about methods, which every Kamailio has.
func (r *Registry) system() []Method {
	return []Method{
		{Name: "system.listMethods", Help: "Lists all RPC methods supported by the server.", Array: true, Handler: r.listMethods},
		{Name: "system.methodHelp", Help: "Print the help string for given method.", Handler: r.methodHelp},
		{Name: "system.methodSignature", Help: "Returns signature of given method.", Handler: methodSignature},
	}
}

func (r *Registry) listMethods(ctx context.Context, _ *Call) (any, error) {
	names := r.Names()
	if r.UnknownNames != nil {
		names = append(names, r.UnknownNames(ctx)...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	list := make(List, len(names))
	for i, name := range names {
		list[i] = name
	}
	return list, nil
}

func (r *Registry) methodHelp(ctx context.Context, c *Call) (any, error) {
	name, ok := c.Str(0)
	if !ok {
		return nil, &Fault{Code: 400, Text: "Method Name Expected"}
	}
	if m, ok := r.Lookup(name); ok {
		if m.Help == "" {
			return "undocumented", nil
		}
		return m.Help, nil
	}
	v, err := r.unknown(ctx, c)
	if errors.Is(err, ErrUnknownMethod) {
		return nil, &Fault{Code: 400, Text: "command not found"}
	}
	return v, err
}

func methodSignature(context.Context, *Call) (any, error) {
	return nil, &Fault{Code: 500, Text: "Not Implemented Yet"}
}
