package jsonrpc_test

import (
	"context"
	"fmt"

	"siptraced/rpc"
	"siptraced/rpc/jsonrpc"
)

func Example() {
	reg := rpc.NewRegistry()
	err := reg.Register(rpc.Method{Name: "core.uptime", Handler: func(context.Context, *rpc.Call) (any, error) {
		return rpc.Struct{{Name: "now", Value: "Sat Nov 21 05:23:34 2026"}, {Name: "uptime", Value: int64(4)}}, nil
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := jsonrpc.Server{Registry: reg, Compact: true}
	a := srv.Answer(context.Background(), rpc.NewPeer("udp", "192.0.2.1:40000"), []byte(`{"jsonrpc":"2.0","method":"core.uptime","id":1}`))
	fmt.Printf("%s\n", a.Body)

	a = srv.Answer(context.Background(), rpc.NewPeer("http", "192.0.2.1:40000"), []byte(`{"jsonrpc":"2.0","method":"no.such","id":2}`))
	fmt.Printf("HTTP/1.1 %d %s\n%s\n", a.Status, a.Reason, a.Body)
	// Output:
	// {"jsonrpc":"2.0","result":{"now":"Sat Nov 21 05:23:34 2026","uptime":4},"id":1}
	// HTTP/1.1 500 Method Not Found
	// {"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found"},"id":2}
}

func ExampleFramer() {
	var f jsonrpc.Framer
	f.Write([]byte(`{"jsonrpc":"2.0","params":["o"n"],"id":1}` + "\n")) // an odd quote
	f.Write([]byte(`{"jsonrpc":"2.0","params":["on"],"id":2}` + "\n"))
	for doc := f.Next(); doc != nil; doc = f.Next() {
		fmt.Printf("%s\n", doc)
	}
	fmt.Println(f.Dropped, "bytes dropped")
	// Output:
	// {"jsonrpc":"2.0","params":["on"],"id":2}
	// 42 bytes dropped
}
