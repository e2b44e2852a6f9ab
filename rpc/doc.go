// Package rpc is the part of remote control that every protocol shares: a
// registry of methods, the values that go in and come out, and the fault.
//
//	reg := rpc.NewRegistry()            // knows system.listMethods and its like
//	err := reg.Register(rpc.Method{Name: "core.version", Help: "...", Handler: version})
//	v, err := reg.Call(ctx, &rpc.Call{Method: "core.version", Peer: peer})
//
// # Values
//
// A parameter or a result is one of: string, int64, float64, bool, nil, []byte,
// [List] and [Struct]. BINRPC has no bool and no nil, JSON has no []byte; what a
// codec does with a value that its format lacks is told there. A result of nil
// is an empty answer. A result that is a List is many answers: an array in JSON,
// and in BINRPC one record after the other.
//
// # What it leaves out
//
// Bytes and sockets: see the packages binrpc, jsonrpc, mi and flexicli for the
// formats and serve for the listeners. Who may call what is the listener's
// business. The methods are registered by the program.
package rpc
