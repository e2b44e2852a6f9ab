package binrpc_test

import (
	"context"
	"fmt"

	"siptraced/rpc"
	"siptraced/rpc/binrpc"
)

func Example() {
	reg := rpc.NewRegistry()
	err := reg.Register(rpc.Method{Name: "core.version", Handler: func(context.Context, *rpc.Call) (any, error) {
		return "siptraced 1.0", nil
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	request, err := binrpc.Request{Cookie: 4711, Method: "core.version"}.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%x\n", request)

	srv := binrpc.Server{Registry: reg}
	answer, n, err := srv.Answer(context.Background(), rpc.NewPeer("unix", ""), nil, request)
	fmt.Printf("%x %t %v\n", answer, n == len(request), err)

	var reply binrpc.Reply
	err = reply.Decode(answer)
	fmt.Println(reply.Cookie, reply.Value, err)
	// Output:
	// a1010f1267910d636f72652e76657273696f6e00
	// a111101267910e73697074726163656420312e3000 true <nil>
	// 4711 siptraced 1.0 <nil>
}
