/* ending.c: a save as soon as the end is announced.
 *
 * nbdkit, told to end, waits until its last client has gone before it lets the plugin clean up; a client that is a kernel
 * may stay for ever, and whoever told nbdkit to end may lose patience and kill it. So the signal itself starts a save, in a
 * thread of its own. The last save, with the mark of a clean end, follows in cleanup and then has little left to do.
 *
 * nbdkit's own handlers stay in place behind ours.
 */
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "plugin.h"

#define NEAR_MS 500     /* nbdkit without a client comes to its end within that */

static const int end_signals[RP_END_SIGNALS] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };

static void on_signal(int number, siginfo_t *info, void *context)
{
	int error = errno;
	unsigned i;

	eventfd_write(rp_plugin.ending.event, 1);
	for (i = 0; i < RP_END_SIGNALS; i++) {
		const struct sigaction *before = &rp_plugin.ending.before[i];

		if (end_signals[i] != number)
			continue;
		if (before->sa_flags & SA_SIGINFO)
			before->sa_sigaction(number, info, context);
		else
			before->sa_handler(number);
	}
	errno = error;
}

/* Is the last save about to come? Not while a client is there; and one that has chosen no export yet is not counted,
 * but waited for. */
static bool end_is_near(void)
{
	struct pollfd event = { .fd = rp_plugin.ending.event, .events = POLLIN };

	if (!rp_plugin.ending.stop && !rp_counters_connections())
		poll(&event, 1, NEAR_MS);
	return rp_plugin.ending.stop;
}

static void *end_run(void *context)
{
	eventfd_t value;

	(void)context;
	while (eventfd_read(rp_plugin.ending.event, &value) && errno == EINTR)
		;
	if (!end_is_near() && !rp_keep_save(rp_plugin.keep, NULL, NULL))
		nbdkit_error("ending: saved; waiting for clients (%u have an export open)", rp_counters_connections());
	return NULL;
}

/* Only where nbdkit handles a signal: what it ignores, or dies of, stays so. */
static void handlers_install(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	unsigned i;

	sigfillset(&action.sa_mask);
	for (i = 0; i < RP_END_SIGNALS; i++)
		if (!sigaction(end_signals[i], NULL, &rp_plugin.ending.before[i]) &&
		    rp_plugin.ending.before[i].sa_handler != SIG_DFL && rp_plugin.ending.before[i].sa_handler != SIG_IGN)
			sigaction(end_signals[i], &action, NULL);
}

int rp_ending_start(void)
{
	sigset_t all, before;
	int error;

	if (!rp_plugin.options.image || rp_plugin.options.no_save || rp_plugin.options.read_only)
		return 0;
	rp_plugin.ending.event = eventfd(0, EFD_CLOEXEC);
	if (rp_plugin.ending.event < 0)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&rp_plugin.ending.thread, NULL, end_run, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		close(rp_plugin.ending.event);
		return -error;
	}
	rp_plugin.ending.runs = true;
	handlers_install();
	return 0;
}

void rp_ending_stop(void)
{
	struct sigaction now;
	unsigned i;

	if (!rp_plugin.ending.runs)
		return;
	for (i = 0; i < RP_END_SIGNALS; i++)
		if (!sigaction(end_signals[i], NULL, &now) && now.sa_sigaction == on_signal)
			sigaction(end_signals[i], &rp_plugin.ending.before[i], NULL);
	rp_plugin.ending.stop = true;
	eventfd_write(rp_plugin.ending.event, 1);
	pthread_join(rp_plugin.ending.thread, NULL);
	close(rp_plugin.ending.event);
	rp_plugin.ending.runs = false;
}
