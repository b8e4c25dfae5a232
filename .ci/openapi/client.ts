// A client of the generated types. It is written as a user would write one: what it reads must be in the document.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

declare const process: { argv: string[] };

const base = process.argv[2];
if (base === undefined) throw new Error("usage: client.js BASE_URL");
const api = createClient<paths>({ baseUrl: base });

function check(condition: unknown, sentence: string): asserts condition {
  if (!condition) throw new Error(`not so: ${sentence}`);
}

const clusters = await api.GET("/api/v1/clusters");
check(clusters.data, "the clusters are listed");
const cluster = clusters.data.items[0];
check(cluster, "the demo has a cluster");

const nodes = await api.GET("/api/v1/clusters/{cluster}/nodes", {
  params: { path: { cluster: cluster.name }, query: { sort: "-memory", limit: 5 } },
});
check(nodes.data, "the nodes are listed");
check(nodes.data.items.length === 5 && 5 < nodes.data.total, "a limit limits");
const memory = nodes.data.items.map((node) => node.allocatable?.memory_bytes ?? -1);
check(memory.every((bytes, at) => at === 0 || bytes <= (memory[at - 1] ?? 0)), "the order is as asked for");
const first = nodes.data.items[0];
check(first?.name, "there is a node");

const node = await api.GET("/api/v1/clusters/{cluster}/nodes/{node}", {
  params: { path: { cluster: cluster.name, node: first.name } },
});
check(node.data?.uid === first.uid, "a node is the same in the list and alone");

const pods = await api.GET("/api/v1/clusters/{cluster}/nodes/{node}/pods", {
  params: { path: { cluster: cluster.name, node: first.name } },
});
check(pods.data, "the pods of the node are listed");

const unknown = await api.GET("/api/v1/clusters/{cluster}", { params: { path: { cluster: "nowhere" } } });
check(unknown.error !== undefined, "an unknown cluster is an error");
check(unknown.error.status === 404 && unknown.error.request_id !== "", "and the error is a problem");

console.log(`a generated client read ${nodes.data.total} nodes of ${cluster.name}`);
