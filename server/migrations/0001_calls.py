"""The stand-in for calls: a content type and its permissions; no table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []
    operations = [
        migrations.CreateModel(
            name="Call",
            fields=[("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))],
            options={
                "verbose_name": "call",
                "verbose_name_plural": "calls",
                "managed": False,
                "default_permissions": ("view", "export"),
            },
        ),
    ]
