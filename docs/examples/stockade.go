// Runs a command in a sandbox of its own, and ends as it does: go run stockade.go python3 -c 'print(6*7)'
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
)

var socket = map[string]string{"": "/run/stockade/stockade.sock"}[os.Getenv("STOCKADE_SOCKET")] + os.Getenv("STOCKADE_SOCKET")
var client = http.Client{Transport: &http.Transport{Dial: func(_, _ string) (net.Conn, error) { return net.Dial("unix", socket) }}}

// A refusal has a message and no exit code. Output that is not text comes in base64: `stdout_encoding` says so.
func post(path string, body any) map[string]any {
	text, _ := json.Marshal(body)
	response, err := client.Post("http://stockade/v1/sandboxes"+path, "application/json", bytes.NewReader(text))
	if err != nil {
		log.Fatal(err)
	}
	answer := map[string]any{"id": "", "stdout": "", "stderr": "", "message": "", "exit_code": 125.0}
	json.NewDecoder(response.Body).Decode(&answer)
	return answer
}

func main() {
	id := post("", struct{}{})["id"].(string)
	result := post("/"+id+"/commands", map[string]any{"argv": os.Args[1:]})
	client.Do(&http.Request{Method: "DELETE", URL: &url.URL{Scheme: "http", Host: "stockade", Path: "/v1/sandboxes/" + id}})
	fmt.Print(result["stdout"])
	fmt.Fprint(os.Stderr, result["stderr"], result["message"])
	os.Exit(int(result["exit_code"].(float64)))
}
