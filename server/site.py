"""The admin site: the skin's own site with our title, and the one on which every room registers its models."""

from unfold.sites import UnfoldAdminSite


class SpendwatchAdminSite(UnfoldAdminSite):  # type: ignore[misc]  # unfold ships no types
    """What /admin/ serves. Its start page is server.pages.start."""

    index_title = "Start"
    site_title = "Spendwatch"
    site_header = "Spendwatch"
    enable_nav_sidebar = True
