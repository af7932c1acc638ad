"""Proxies that the environment names."""

import urllib.request

from yarl import URL

__all__ = ["proxy_for"]


def proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for a URL (`https_proxy`, `http_proxy`, `no_proxy`).

    aiohttp's own way (`trust_env`) would also take user and password from `~/.netrc`, and send them, even in place of a
    token.
    """
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.host_port_subcomponent or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
