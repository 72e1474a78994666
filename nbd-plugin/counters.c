/* counters.c: what clients did, for status. Each connection counts for itself; sums are made when somebody asks. */
#include "plugin.h"

static void counters_add(struct rp_counters *to, struct rp_counters *from)
{
	unsigned i;

	for (i = 0; i < RP_REQUEST_KINDS; i++)
		rp_count(&to->requests[i], atomic_load_explicit(&from->requests[i], memory_order_relaxed));
	rp_count(&to->bytes_read, atomic_load_explicit(&from->bytes_read, memory_order_relaxed));
	rp_count(&to->bytes_written, atomic_load_explicit(&from->bytes_written, memory_order_relaxed));
}

void rp_counters_connect(struct rp_export *export)
{
	pthread_mutex_lock(&rp_plugin.lock);
	export->prev = NULL;
	export->next = rp_plugin.first;
	if (export->next)
		export->next->prev = export;
	rp_plugin.first = export;
	rp_plugin.connection_count++;
	pthread_mutex_unlock(&rp_plugin.lock);
}

void rp_counters_disconnect(struct rp_export *export)
{
	pthread_mutex_lock(&rp_plugin.lock);
	counters_add(&rp_plugin.past, &export->counters);
	if (export->prev)
		export->prev->next = export->next;
	else
		rp_plugin.first = export->next;
	if (export->next)
		export->next->prev = export->prev;
	rp_plugin.connection_count--;
	pthread_mutex_unlock(&rp_plugin.lock);
}

unsigned rp_counters_connections(void)
{
	unsigned count;

	pthread_mutex_lock(&rp_plugin.lock);
	count = rp_plugin.connection_count;
	pthread_mutex_unlock(&rp_plugin.lock);
	return count;
}

void rp_counters_print(FILE *to)
{
	static const char *const names[RP_REQUEST_KINDS] = {
		"read", "write", "zero", "trim", "flush", "extents", "cache",
	};
	struct rp_counters sum = { 0 };
	struct rp_export *export;
	unsigned i;

	pthread_mutex_lock(&rp_plugin.lock);
	counters_add(&sum, &rp_plugin.past);
	for (export = rp_plugin.first; export; export = export->next)
		counters_add(&sum, &export->counters);
	fprintf(to, "connections: %u\n", rp_plugin.connection_count);
	pthread_mutex_unlock(&rp_plugin.lock);
	for (i = 0; i < RP_REQUEST_KINDS; i++)
		fprintf(to, "requests %s: %llu\n", names[i], (unsigned long long)sum.requests[i]);
	fprintf(to, "bytes read: %llu\n", (unsigned long long)sum.bytes_read);
	fprintf(to, "bytes written: %llu\n", (unsigned long long)sum.bytes_written);
}
